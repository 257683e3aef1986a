"""Faster equals of Detectron2's operators on a CPU."""
