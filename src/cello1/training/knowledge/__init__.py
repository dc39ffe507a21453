"""Knowledge: questions and answers from the atlas, to train on before reasoning traces."""
