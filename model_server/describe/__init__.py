"""A model.json for somebody's own model, or one more file into a bundle that is there."""
