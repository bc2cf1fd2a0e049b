"""What the report measures: autoencoders, the images they are measured on, and what one pass over both keeps."""
