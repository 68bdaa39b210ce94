"""The files of an analysis: gathered while frames come in, written together, moved into place at once."""
