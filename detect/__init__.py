"""Any classifier as a Detectron2 detector."""
