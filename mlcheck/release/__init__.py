"""A release: many images on several engines, judged by many machines and joined in one report."""
