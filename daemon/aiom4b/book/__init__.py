"""What shall the book be? Pure decisions, values in and values out."""
