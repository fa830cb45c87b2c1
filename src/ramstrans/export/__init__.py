"""From a run folder to a file that other programs run: one graph, from pixels to answers."""
