"""The commands of ``aiida-difftre``, by what one wants to do.

Everything heavy is imported in the command that needs it. The functions end in ``_command``: a module of
``aiida_difftre.cli`` that is called like a command keeps its name.
"""
