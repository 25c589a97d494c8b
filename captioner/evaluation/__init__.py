"""From images and references to figures: results files, comparison, report."""
