"""VQA v2: questions, answers, banks of captions."""
