"""What several trials share: their networks, and how the knobs of their arms were tuned."""
