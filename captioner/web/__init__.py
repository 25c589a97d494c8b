"""The page: one captioner in the browser."""
