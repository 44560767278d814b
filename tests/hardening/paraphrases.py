"""Sentences of the sentiment suite with paraphrases written by hand: what a leak looks like that is not word for word."""

EDITED = [  # a word or two swapped, added or left out
    ("A riveting novel, this one.", "This one is a riveting novel."),
    ("Who on earth thought that this was a good idea?", "Who on earth thought this would be a good idea?"),
    (
        "Although the costumes are beautiful, I was bored stiff.",
        "Although the costumes are gorgeous, I was bored stiff.",
    ),
    ("The staff were never anything but unhelpful.", "The staff were honestly never anything but unhelpful."),
    ("It is impossible not to love this film.", "It is simply impossible not to love this movie."),
    ("Don't waste your money on this blender.", "Please don't waste any money on this blender."),
    (
        "Great movie, if you enjoy watching paint dry for two hours.",
        "A great film, if you enjoy watching paint dry for three hours.",
    ),
    (
        "I finally got some sleep, thanks to this edge-of-the-seat thriller.",
        "I finally got some rest, thanks to this edge-of-the-seat thriller.",
    ),
    (
        "The lead gives a mesmerising performance, and the two hours fly past.",
        "The lead gives a spellbinding performance, and the two hours fly by.",
    ),
    (
        "While the singer was in fine voice, the sound was so bad that the evening was ruined.",
        "While the singer was in good voice, the sound was so awful that the night was ruined.",
    ),
    (
        "I wish I knew what beautiful movie I just watched, because it certainly was not this one.",
        "I wish I knew which beautiful film I just watched, since it was certainly not this one.",
    ),
    (
        "This used to be the worst bakery in town; since the new owners came, the bread is heavenly.",
        "It used to be the worst bakery in town; since the new owners arrived, the bread has been heavenly.",
    ),
]

REORDERED = [  # the clauses the other way round
    (
        "Although the costumes are beautiful, I was bored stiff.",
        "I was bored stiff, although the costumes are beautiful.",
    ),
    (
        "I wish the novel had been twice as long, because I miss its people already.",
        "I already miss its people; I wish the novel had been twice as long.",
    ),
    (
        "My neighbour hates her robot mower. Mine is a marvel.",
        "Mine is a marvel, but my neighbour hates her robot mower.",
    ),
    (
        "The tablet is sluggish, the screen scratches easily, and the charger broke within a week; I regret buying it.",
        "I regret buying the tablet: the charger broke within a week, the screen scratches easily, and it is sluggish.",
    ),
    (
        "The guidebook calls this restaurant a tourist trap, but we ate like kings and paid very little.",
        "We ate like kings and paid very little in this restaurant, which the guidebook calls a tourist trap.",
    ),
    (
        "There are a few laughs early on; sadly, the rest is unbearable.",
        "Sadly the rest is unbearable, though there are a few laughs early on.",
    ),
    (
        "While the hall was freezing and the seats were hard, the quartet played so movingly that nobody cared.",
        "The quartet played so movingly that nobody cared that the hall was freezing and the seats were hard.",
    ),
    (
        "If only all hotels were like this one, I would never go home.",
        "I would never go home if only all hotels were like this one.",
    ),
]

RETOLD = [  # tense, number and person changed, and a word or two
    (
        "The phone was a nuisance until the update, and ever since it has been a treat to use.",
        "My phone had been a nuisance until the update, and since then it is a treat to use.",
    ),
    ("Nobody in the cast puts a foot wrong.", "Nobody in the cast put one foot wrong."),
    (
        "Early on I nearly walked out, but by the end I was standing on my seat and cheering.",
        "I nearly walk out early on, but by the end I stand on my seat and cheer.",
    ),
    (
        "The soup was no hardship to finish, and nor was the second bowl.",
        "Finishing the soup is no hardship, and nor is a second bowl.",
    ),
    (
        "The salesman sniffed that the cheap vacuum was noisy and weak, and it has turned out quiet, strong and a pleasure "
        "to use.",
        "The salesman sniffs that cheap vacuums are noisy and weak; ours turned out quiet, strong and a pleasure to use.",
    ),
    (
        "I did not enjoy a minute of it, and my sister, who likes everything, didn't either.",
        "I don't enjoy a minute of it, and neither does my sister, who likes everything.",
    ),
    (
        "Only the mosquitoes seemed to eat well at this restaurant.",
        "At this restaurant only the mosquitoes seem to be eating well.",
    ),
]

REWORDED = [  # the same thought and pictures, many words others
    (
        "Great movie, if you enjoy watching paint dry for two hours.",
        "Superb film, provided you like to watch paint drying for a couple of hours.",
    ),
    (
        "I finally got some sleep, thanks to this edge-of-the-seat thriller.",
        "This edge-of-the-seat thriller at last let me get some shut-eye.",
    ),
    (
        "Despite two fine performances, the whole thing left me cold and rather cross.",
        "Two good performances aside, all of it left me cold and a bit annoyed.",
    ),
    (
        "What is the use of an umbrella that cannot cope with a breeze?",
        "What good is an umbrella which can't handle a light breeze?",
    ),
    (
        "The jokes are stale, the songs are grating, and the ending is an insult to anyone who stayed awake for it.",
        "Stale gags, irritating songs, and an ending that insults whoever managed to stay awake.",
    ),
    (
        "A year ago I'd have given it one star. Today it deserves all five.",
        "Twelve months back it would have got a single star from me; now it earns five.",
    ),
    (
        "Compared with my old phone, this one is a dream.",
        "This phone is an absolute dream next to the one I had before.",
    ),
    (
        "The school orchestra played it better last spring, and half of them are nine years old.",
        "Our school's orchestra gave a better rendition last spring, and half its players are nine.",
    ),
]
