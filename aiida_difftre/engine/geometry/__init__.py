"""Cells, images and neighbours."""
