"""The colours of all figures: Okabe and Ito's palette, safe for colour-blind readers, each with one meaning."""

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, PALE = "#8C8C8C", "rgba(140, 140, 140, 0.28)"

LIVE, PREVIEW, DENSE, CONTROL, PREDICTION = BLUE, SKY, GREY, GREY, PURPLE
PINS = (ORANGE, GREEN, VERMILLION)
ROLES = {  # what the bytes of a file are for
    "values": BLUE,
    "indices": ORANGE,
    "codebook": GREEN,
    "bias": PURPLE,
    "normalization": YELLOW,
    "header": GREY,
}
SIGNED = [[0.0, VERMILLION], [0.5, "#FFFFFF"], [1.0, BLUE]]  # negative, zero, positive weights
GONE = "#000000"
