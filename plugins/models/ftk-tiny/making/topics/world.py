"""Everything that the tiny model is meant to know: the tables of its small world, in simple English."""

from __future__ import annotations

from .turns import pairs, table, word_list

# name | plural | sound | home | food | legs | size | covering | young | can | cannot
ANIMALS = table("""
cat | cats | meow | in a house | fish | four | small | fur | kitten | climb | fly
dog | dogs | woof | in a house | meat | four | small | fur | puppy | run | fly
cow | cows | moo | on a farm | grass | four | big | hair | calf | walk | fly
horse | horses | neigh | on a farm | hay | four | big | hair | foal | run | fly
pig | pigs | oink | on a farm | corn | four | big | skin | piglet | dig | fly
sheep | sheep | baa | on a farm | grass | four | big | wool | lamb | walk | fly
goat | goats | maa | on a farm | leaves | four | big | hair | kid | climb | fly
duck | ducks | quack | on a pond | bread | two | small | feathers | duckling | swim | read
hen | hens | cluck | on a farm | seeds | two | small | feathers | chick | run | read
frog | frogs | croak | in a pond | flies | four | small | wet skin | tadpole | jump | fly
lion | lions | roar | in the grassland | meat | four | big | fur | cub | run | fly
tiger | tigers | growl | in the jungle | meat | four | big | fur | cub | swim | fly
bear | bears | grr | in the forest | honey | four | big | fur | cub | climb | fly
wolf | wolves | howl | in the forest | meat | four | big | fur | pup | run | fly
fox | foxes | yip | in the forest | mice | four | small | fur | cub | run | fly
mouse | mice | squeak | in a hole | cheese | four | small | fur | pup | run | fly
rabbit | rabbits | sniff | in a hole | carrots | four | small | fur | bunny | jump | fly
elephant | elephants | trumpet | in the grassland | leaves | four | big | skin | calf | walk | fly
monkey | monkeys | chatter | in the jungle | bananas | two | small | fur | baby monkey | climb | fly
snake | snakes | hiss | in the desert | mice | no | small | scales | snakelet | crawl | walk
owl | owls | hoot | in a tree | mice | two | small | feathers | owlet | fly | read
bird | birds | tweet | in a nest | seeds | two | small | feathers | chick | fly | read
bee | bees | buzz | in a hive | honey | six | small | fine hair | larva | fly | read
whale | whales | song | in the sea | krill | no | big | skin | calf | swim | walk
shark | sharks | nothing | in the sea | fish | no | big | tough skin | pup | swim | walk
fish | fish | nothing | in the water | plants | no | small | scales | fry | swim | walk
penguin | penguins | honk | on the ice | fish | two | small | feathers | chick | swim | fly
turtle | turtles | nothing | near the water | plants | four | small | a shell | hatchling | swim | fly
camel | camels | grunt | in the desert | dry grass | four | big | hair | calf | walk | fly
giraffe | giraffes | hum | in the grassland | leaves | four | big | fur | calf | run | fly
spider | spiders | nothing | in a web | flies | eight | small | fine hair | spiderling | climb | fly
ant | ants | nothing | in a nest | seeds | six | small | a hard shell | larva | carry | read
""")

# thing as it stands in a sentence | colour
COLOURS = table("""
the sky | blue
the sea | blue
the sun | yellow
the moon | white
snow | white
milk | white
a cloud | white
salt | white
grass | green
a leaf | green
a frog | green
a cucumber | green
a pea | green
blood | red
a tomato | red
a strawberry | red
a cherry | red
a fire truck | red
a banana | yellow
a lemon | yellow
butter | yellow
corn | yellow
an orange | orange
a carrot | orange
a pumpkin | orange
a fox | orange
chocolate | brown
wood | brown
a bear | brown
coffee | brown
earth | brown
coal | black
the night | black
a crow | black
an elephant | grey
a mouse | grey
a stone | grey
a pig | pink
a flamingo | pink
a plum | purple
a grape | purple
lavender | purple
""")
COLOUR_NAMES = word_list("red blue green yellow white black brown orange pink purple grey")
MIXES = table("""
red | blue | purple
blue | yellow | green
red | yellow | orange
black | white | grey
red | white | pink
""")

# name | plural | kind | taste
FOODS = table("""
apple | apples | fruit | sweet
banana | bananas | fruit | sweet
lemon | lemons | fruit | sour
orange | oranges | fruit | sweet
cherry | cherries | fruit | sweet
grape | grapes | fruit | sweet
plum | plums | fruit | sweet
pear | pears | fruit | sweet
carrot | carrots | vegetable | fresh
potato | potatoes | vegetable | mild
onion | onions | vegetable | sharp
pea | peas | vegetable | sweet
cucumber | cucumbers | vegetable | fresh
pumpkin | pumpkins | vegetable | mild
cake | cakes | dessert | sweet
cookie | cookies | dessert | sweet
pie | pies | dessert | sweet
""")
KINDS = {
    "animal": [row[0] for row in ANIMALS],
    "fruit": [row[0] for row in FOODS if row[2] == "fruit"],
    "vegetable": [row[0] for row in FOODS if row[2] == "vegetable"],
    "dessert": [row[0] for row in FOODS if row[2] == "dessert"],
    "colour": COLOUR_NAMES,
    "drink": ["water", "milk", "tea", "coffee", "juice"],
    "toy": ["ball", "doll", "kite", "puzzle", "toy car"],
    "tool": ["hammer", "saw", "spade", "knife", "rope"],
    "pet": ["cat", "dog", "rabbit", "fish"],
    "season": ["spring", "summer", "autumn", "winter"],
}

CAPITALS = pairs("""
France/Paris, Italy/Rome, Spain/Madrid, Germany/Berlin, England/London, Japan/Tokyo, China/Beijing,
Russia/Moscow, Greece/Athens, Egypt/Cairo, Portugal/Lisbon, Austria/Vienna, Poland/Warsaw, Norway/Oslo,
Sweden/Stockholm, Finland/Helsinki, Denmark/Copenhagen, Ireland/Dublin, Kenya/Nairobi, Cuba/Havana, Peru/Lima,
Canada/Ottawa, India/New Delhi, Hungary/Budapest, Belgium/Brussels, Turkey/Ankara, Thailand/Bangkok, Chile/Santiago
""")

OPPOSITES = pairs("""
big/small, hot/cold, up/down, day/night, good/bad, fast/slow, happy/sad, old/young, wet/dry, open/closed, full/empty,
hard/soft, light/dark, long/short, loud/quiet, near/far, high/low, clean/dirty, rich/poor, strong/weak, early/late,
first/last, left/right, yes/no, black/white, thick/thin, easy/difficult, in/out, on/off, love/hate, start/stop,
push/pull, buy/sell, win/lose, give/take, warm/cool, true/false, sweet/sour, brave/afraid, heavy/light, before/after,
inside/outside, always/never, asleep/awake, laugh/cry, float/sink, above/below
""")

# thing with article | what it is
DEFINITIONS = table("""
a chair | a thing that you sit on
a bed | a thing that you sleep in
a table | a thing with a flat top where you eat or work
a book | a thing with pages that you read
a pen | a thing that you write with
a cup | a thing that you drink from
a spoon | a thing that you eat soup with
a fork | a thing that you eat with
a plate | a flat thing that you eat from
a bottle | a thing that holds water or milk
a knife | a thing that you cut with
a clock | a thing that shows the time
a lamp | a thing that gives light
a key | a thing that opens a door
a door | a part of a house that you open and close
a window | a part of a house that lets in light
a house | a place where people live
a school | a place where children learn
a farm | a place where people grow food and keep animals
a forest | a place with many trees
a river | a long line of water that runs to the sea
a mountain | a very high hill
a lake | water with land all around it
an island | land with water all around it
a desert | a very dry place with much sand
the sea | a very big place full of salt water
the sun | a star that gives us light and heat
the moon | a round body that goes around the earth
a star | a hot ball of gas that shines in the night
a cloud | many small drops of water in the sky
rain | water that falls from the clouds
snow | soft white ice that falls from the sky
ice | water that is frozen
wind | air that moves
fire | hot light that burns things
a tree | a tall plant with wood and leaves
a flower | the pretty part of a plant
a seed | a small thing that grows into a plant
bread | a food made from flour
cheese | a food made from milk
honey | a sweet food made by bees
soup | a hot food that you eat with a spoon
a car | a thing with four wheels that drives on a road
a train | a long thing that runs on rails
a boat | a thing that goes on water
a plane | a thing with wings that flies
a bike | a thing with two wheels that you ride
a doctor | a person who helps sick people
a teacher | a person who helps you learn
a farmer | a person who grows food
a baker | a person who makes bread
a cook | a person who makes food
a king | a man who rules a land
a queen | a woman who rules a land
a friend | a person whom you like and trust
music | sound that is nice to hear
a song | music with words
a story | words about things that happened
a word | a small piece of language
a number | a thing that you count with
a computer | a machine that works with numbers and words
a phone | a thing that lets you talk to people far away
a ball | a round thing that you play with
a doll | a small toy that looks like a person
a garden | a place where flowers grow
a kitchen | a place where you cook
a shop | a place where you buy things
a hat | a thing that you wear on your head
a shoe | a thing that you wear on your foot
a coat | a warm thing that you wear in winter
an umbrella | a thing that keeps you dry in the rain
a language model | a program that learns to write words
""")

# who | short answer | the person is
FAMILY = table("""
mother of my mother | grandmother
father of my mother | grandfather
mother of my father | grandmother
father of my father | grandfather
brother of my mother | uncle
brother of my father | uncle
sister of my mother | aunt
sister of my father | aunt
son of my mother | brother
daughter of my mother | sister
son of my father | brother
daughter of my father | sister
son of my uncle | cousin
daughter of my aunt | cousin
son of my brother | nephew
daughter of my brother | niece
son of my sister | nephew
daughter of my sister | niece
""")

# body part | what you do with it | number
BODY = table("""
eyes | see | two
ears | hear | two
nose | smell | one
mouth | eat and talk | one
hands | hold things | two
feet | walk | two
legs | run | two
teeth | bite | many
fingers | touch things | ten
brain | think | one
""")

# weather word | what it is like | advice
WEATHER = table("""
raining | wet | take an umbrella
snowing | white and cold | wear a warm coat
sunny | bright and warm | wear a hat
windy | wild | hold on to your hat
cold | chilly | wear a coat
hot | very warm | drink some water
foggy | grey | walk slowly
stormy | dark and loud | stay inside
""")

# season | weather | what happens
SEASONS = table("""
spring | mild | the flowers grow
summer | hot | the sun shines for a long time
autumn | cool | the leaves fall from the trees
winter | cold | the snow falls
""")

NAMES = word_list("""
Ana Ben Carl Dora Emma Finn Gina Hugo Ida Jack Kim Leo Mia Nick Olga Paul Rosa Sam Tom Una Vera Will Yara Zoe Lily Max
Nora Otto Pia Ruth Anna Peter Lucy Mark Jane Alex Eva Ali Sara John Mary David Bob Alice Bill Chen Lena Omar Fatima Ivan
Julia Karl Laura Mike Oscar Petra Ravi Sofia Tim Uma Victor Wei Yusuf Amir Clara Daniel Ella Frank Grace Henry
Iris James Kate Luis Maria Noah Ryan Simon Tina Chris Linda Steve Susan Robert Emily George Hannah
""")
PET_NAMES = word_list("""
Rex Bella Spot Coco Milo Daisy Lucky Fluffy Nemo Bubbles Biscuit Pepper Ginger Shadow Sunny Muffin Max Buddy Snowy Tiger
Cookie Socks Rocky Honey Oreo Toffee
""")
BOT_NAMES = word_list("""
Bo Luna Pip Zed Nova Kiki Robo Sage Dot Ivy Max Otto Mimi Echo Poppy Gus Nina Ollie Ruby Toby Maxine Bob Alice Ada Sam
""")
OBJECTS = word_list("ball box book cup hat car key lamp pen bag shoe kite coat doll spoon bike chair drum")
PLACES = word_list("kitchen garden park school forest house shop tower barn cave tent library")
