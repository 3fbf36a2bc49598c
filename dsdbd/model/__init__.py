"""What a point is, wherever it travels: field types, series, columns of points, predicates on tags, line protocol."""
