"""How good a model is, by the rules of COCO."""
