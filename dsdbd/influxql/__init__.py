"""InfluxQL 1.x: from text to statements and back, without knowing how a statement is executed."""
