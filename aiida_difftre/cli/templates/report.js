"use strict";
(async () => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const style = () => getComputedStyle(document.documentElement);

  // Colours of figures are variables of the style sheet: they follow the browser's light or dark.
  const coloured = (value, css) => {
    if (typeof value === "string" && value.startsWith("var(--")) return css.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return value.map((one) => coloured(one, css));
    if (value !== null && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, css)]));
    return value;
  };

  const unpack = async () => {
    const packed = atob(document.getElementById("plotly").textContent.trim());
    const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };

  const draw = () => {
    const css = style();
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById(name);
      const { data, layout } = coloured(figure, css);
      Plotly.react(place, data, { ...layout, autosize: true }, {
        responsive: true, displaylogo: false, displayModeBar: "hover",
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
        toImageButtonOptions: { format: "svg", filename: name },
      });
    }
  };

  if (typeof DecompressionStream === "undefined") {
    for (const place of document.querySelectorAll(".plot"))
      place.textContent = "This browser is too old to draw the figure; one of 2023 or later does.";
    return;
  }
  await unpack();
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.documentElement.dataset.ready = "yes";
})();
