"""What a finished run shows people."""
