{ word }: { text = "the word is ${word}"; }
