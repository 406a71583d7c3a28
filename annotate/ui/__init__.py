"""The pages of annotation in a browser: judging pairs, a choice below a run of Compose, the owner's. Only here is Gradio imported."""
