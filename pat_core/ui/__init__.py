"""The views one looks at in a browser: Compose now, later Train and Insights. The topmost layer; only here is Gradio imported."""
