"""The pages of annotation in a browser: judging pairs, a choice below a run of Compose, and the owner's bench. Only here is Gradio imported."""
