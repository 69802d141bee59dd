"""The colors of all figures: Okabe and Ito's palette, safe for color-blind readers, each with one meaning."""

ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
BLACK = "#000000"
WHITE = "#FFFFFF"
GRAY = "#8C8C8C"
PALE = "rgba(140, 140, 140, 0.28)"
TEXT = "#767676"  # contrast of 4.5 to 1 on white and on black; a live explorer uses JupyterLab's own color

LIVE = BLUE
PALE_LIVE = "rgba(0, 114, 178, 0.3)"  # BLUE over what it counts, which stays visible
PALE_ORANGE = "rgba(230, 159, 0, 0.4)"
PREVIEW = SKY
DENSE = GRAY
CONTROL = GRAY
PREDICTION = PURPLE
EARLIER = ORANGE
PINS = (ORANGE, GREEN, VERMILLION)
ROLES = {  # what the bytes of a file store: color and label
    "values": (BLUE, "values"),
    "indices": (ORANGE, "indices"),
    "codebook": (GREEN, "codebook, scales"),
    "bias": (PURPLE, "bias"),
    "normalization": (YELLOW, "normalization"),
    "header": (GRAY, "header"),
}
FAMILIES = {  # of methods: color and marker, so that no family is told by its color alone, and name
    "pruning": (BLUE, "circle", "pruning"),
    "quantization": (ORANGE, "diamond", "quantization"),
    "low_rank": (GREEN, "triangle-up", "low rank"),
    "structural_matrix": (VERMILLION, "cross", "structural matrix"),
    "compact_filters": (SKY, "triangle-down", "compact filters"),
    "distillation": (PURPLE, "star", "distillation"),
    "training": (YELLOW, "pentagon", "training"),
    "combined": (TEXT, "hexagram", "several families"),
}
SIGNED = [[0.0, VERMILLION], [0.5, WHITE], [1.0, BLUE]]  # negative, zero, positive weights
