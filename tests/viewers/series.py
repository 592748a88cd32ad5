"""Descriptions of the series that monro adds, as a reader sees them in a viewer."""

FISTULA_MAP = "AI CVF occlusion map - INVESTIGATIONAL"
FISTULA_REPORT = "AI CVF result - INVESTIGATIONAL"
FISTULA_SUMMARY = "AI CVF summary - INVESTIGATIONAL"
INFECTION_MAP = "AI CNSI Grad-CAM map - INVESTIGATIONAL"
INFECTION_REPORT = "AI CNSI result - INVESTIGATIONAL"
INFECTION_SUMMARY = "AI CNSI summary - INVESTIGATIONAL"
INFECTION_REGIONS = "AI CNSI proposed regions - INVESTIGATIONAL"

RESULTS = (
    FISTULA_MAP,
    FISTULA_REPORT,
    FISTULA_SUMMARY,
    INFECTION_MAP,
    INFECTION_REPORT,
    INFECTION_SUMMARY,
    INFECTION_REGIONS,
)

A_MAP_ON_THE_SCREEN = 2000
"""Pixels that a map colours at least; caption and colour bar are the same on every image."""

A_REGION_ON_THE_SCREEN = 500
"""Pixels that the outlines and the tint of a small region colour at least."""

A_THUMBNAIL = 5000
"""Pixels of a thumbnail that are not black at least, where it shows a head."""

COLOURS_OF_A_THUMBNAIL = 500
"""Pixels that caption, colour bar and map colour at least in the thumbnail of an overlay."""
