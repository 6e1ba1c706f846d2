"""Masks: where a model's small planes land in the picture, and the forms in which a reply carries them.

A mask is worked on as a crop of the picture (`Placed`) and kept as run lengths (`Rle`), never as a plane of the whole.
"""
