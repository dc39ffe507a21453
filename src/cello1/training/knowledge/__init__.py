"""Knowledge: questions and answers from the atlas, to be learned before reasoning."""
