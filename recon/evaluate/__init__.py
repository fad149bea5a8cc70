"""How good a reconstruction is, and showing it: metrics, pictures, the turntable and the report."""
