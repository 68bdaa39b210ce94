"""Files beside a video or a folder: what their names say, which frame each belongs to, pictures and masks."""
