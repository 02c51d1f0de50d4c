"""What fields say about the label, alone, together and beyond each other; which stay, and how wide their tables are."""
