"""The systems that the paper compares with (Tables 1 and 2, §5.4), in SPINet's own interface."""
