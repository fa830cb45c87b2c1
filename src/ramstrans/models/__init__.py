"""The model: encoder, saliency, regions, zoom, and the methods that combine them."""
