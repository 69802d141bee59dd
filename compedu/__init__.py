"""compedu: learn neural-network compression by turning knobs on real trained networks."""
