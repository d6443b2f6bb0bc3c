"""Renderers: results in, text or documents out.  They decide the look and nothing else."""
