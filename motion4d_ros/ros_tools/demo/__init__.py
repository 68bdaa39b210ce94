"""`make demo`: the real node on a recording, played over DDS, recorded, scored and drawn."""
