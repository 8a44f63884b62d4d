"""Datasets: upload, look at, export, delete."""
