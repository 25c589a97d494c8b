"""The Penn Treebank tokenizer of CoreNLP 3.4.1, which COCO's figures rest on."""
