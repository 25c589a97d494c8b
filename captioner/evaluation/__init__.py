"""From pictures and references to figures: results files, comparison, report."""
