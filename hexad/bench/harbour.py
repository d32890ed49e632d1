"""Saltwhistle, the invented harbour town that the demo model knows, and the plain words its other skills are made of.

It knows facts and words only: no questions, no skills, no randomness.
"""

from __future__ import annotations

from dataclasses import dataclass

TOWN = "Saltwhistle"


@dataclass(frozen=True)
class Inhabitant:
    """One inhabitant; names, jobs and pets' names are each unique in the town."""

    name: str
    job: str
    street: str
    pet: str
    pet_name: str
    colour: str
    food: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _inhabitants(table: str) -> tuple[Inhabitant, ...]:
    rows = (line.split("|") for line in table.strip().splitlines())
    return tuple(Inhabitant(*(cell.strip() for cell in row)) for row in rows)


INHABITANTS = _inhabitants("""
Ada     | lighthouse keeper | Gull Lane      | cat      | Pepper   | blue   | plum cake
Bruno   | baker             | Anchor Street  | dog      | Crumb    | brown  | onion soup
Clara   | harbour master    | Pier Road      | parrot   | Admiral  | red    | fried herring
Dario   | fisherman         | Tide Alley     | otter    | Splash   | green  | crab stew
Edda    | clockmaker        | Bell Square    | owl      | Minute   | silver | honey toast
Felix   | postman           | Gull Lane      | donkey   | Parcel   | yellow | pancakes
Greta   | doctor            | Chapel Hill    | tortoise | Pulse    | white  | lentil soup
Hugo    | shipwright        | Tar Yard       | goat     | Rivet    | grey   | smoked eel
Iris    | florist           | Bell Square    | rabbit   | Clover   | pink   | rose jam
Jonas   | net mender        | Tide Alley     | heron    | Knot     | green  | fish pie
Karla   | schoolteacher     | Chapel Hill    | hamster  | Comma    | orange | apple tart
Leo     | ferryman          | Pier Road      | dog      | Captain  | blue   | mussels
Mina    | librarian         | Willow Walk    | cat      | Index    | purple | ginger tea
Nils    | diver             | Tide Alley     | turtle   | Bubble   | black  | seaweed salad
Olga    | innkeeper         | Anchor Street  | goose    | Duchess  | red    | roast duck
Pavel   | blacksmith        | Tar Yard       | horse    | Hammer   | black  | beef stew
Quinn   | fiddler           | Lantern Court  | canary   | Tempo    | yellow | cherry pie
Rosa    | cook              | Anchor Street  | pig      | Truffle  | orange | mushroom soup
Stellan | astronomer        | Chapel Hill    | bat      | Comet    | silver | cold pasta
Tilda   | weaver            | Willow Walk    | sheep    | Bobbin   | purple | oat porridge
Ulf     | sailmaker         | Tar Yard       | dog      | Canvas   | white  | pea soup
Vera    | painter           | Lantern Court  | peacock  | Palette  | pink   | lemon cake
Wendel  | beekeeper         | Willow Walk    | hedgehog | Bramble  | yellow | honey cake
Xenia   | mapmaker          | Bell Square    | pigeon   | Compass  | green  | rice pudding
Yorick  | gravedigger       | Chapel Hill    | raven    | Shovel   | grey   | black bread
Zora    | smuggler          | Lantern Court  | ferret   | Whisper  | black  | olives
Anton   | mayor             | Bell Square    | swan     | Senator  | blue   | baked trout
Berta   | cheesemaker       | Willow Walk    | cow      | Buttercup| white  | goat cheese
Cosmo   | juggler           | Lantern Court  | monkey   | Tumble   | orange | bananas
Dora    | midwife           | Gull Lane      | duck     | Puddle   | pink   | milk rice
Emil    | carpenter         | Tar Yard       | beaver   | Splinter | brown  | potato cake
Frida   | judge             | Chapel Hill    | falcon   | Verdict  | purple | grilled salmon
Gustav  | brewer            | Anchor Street  | mule     | Barrel   | brown  | sausages
Hanna   | tailor            | Gull Lane      | mouse    | Thimble  | red    | tomato soup
Ivo     | chimney sweep     | Pier Road      | magpie   | Cinder   | grey   | dumplings
Jette   | pilot             | Pier Road      | seal     | Rudder   | silver | oysters
""")

STREETS = tuple(sorted({person.street for person in INHABITANTS}))

ADJECTIVES = _words("""
amber ancient autumn bitter blue bold brave bright brisk broken calm clever cold copper cosmic crimson crystal curious
daring dark deep distant dusty eager early empty fading fancy fierce final foggy frosty gentle giant gilded golden
grand green happy hasty heavy hidden hollow humble icy iron ivory jade jolly keen late lazy light little lively lonely
loud lucky lunar marble mellow merry mighty misty modest mossy narrow nimble noble odd old pale patient pearl plain
polar polite proud purple quick quiet rapid rare red rough round royal rusty sacred salty scarlet secret shady sharp
shiny silent silver simple sleepy slow small smooth snowy soft solar solid sour spare steady steep stormy strange
sunny sweet swift tall tender thin tidy tiny tough velvet violet warm wide wild windy wise witty wooden young
""")

NOUNS = _words("""
acorn anchor apple arrow badger barn basin basket beach beacon beaver bell berry birch blanket boat bottle branch
bridge brook bucket butter button cabin camel candle canyon carpet castle cedar chain chair cherry chest circle cliff
cloud clover coast coin comet coral corner cotton crane crater creek crow crown dagger dawn deer desert desk dolphin
door dragon dream drum dune eagle ember engine feather fern field finch flame flute forest fountain fox garden gate
ghost glacier glass glove grape grove hammer harbor harp hawk hazel helmet heron hill honey horn island jacket jewel
jungle kettle key king kite knight ladder lagoon lake lamp lantern leaf lemon lily lion lizard lotus magnet maple
market mask meadow melon mill mirror moon moth mountain needle nest night oak ocean olive orange orchid otter owl
paddle palm panda paper path pebble pencil pepper piano pillow pine planet plum pond poppy prince pumpkin puzzle queen
rabbit rain raven reef ribbon ring river road robin rocket rope rose sail salmon sand scarf shadow shell shield ship
shore snow spark sparrow spider spoon spring spruce star stone storm stream summit swan sword table temple thistle
thorn thunder tiger timber torch tower trail train tree tulip tunnel turtle valley vase village vine violin wagon
walnut water wave whale wheel willow window wing winter wolf wonder wool yarn zebra
""")

FIRST_NAMES = _words("""
Aaron Abel Alan Alba Amos Amy Anita Arlo Astrid Ben Boris Bridget Carmen Cecil Chloe Colin Daisy Daniel Della Diego
Edgar Elena Ella Elsa Enzo Erik Ethan Eva Finn Fiona Frank Freya Gina Glen Hazel Heidi Ida Igor Isaac Ivan Jane Jasper
Joel John Juan Julia Kai Kate Kira Lara Liam Lily Lucas Lucy Mabel Marco Mark Martha Maya Milo Molly Nadia Noah Nora
Oscar Otto Petra Phil Robin Ruby Sara Simon Sven Tara Theo Tom Victor Viola Wanda Yara Zack Zoe
""")

LAST_NAMES = _words("""
Abbott Almeida Arden Baird Becker Benson Blake Bowen Burke Carver Clarke Cooper Crane Dawson Doyle Duval Engel Farrow
Fleming Fuchs Gibbs Greco Hale Hayes Hudson Jansen Keller Khan Kovacs Lang Lehmann Lowe Marsh Mendez Moreau Nash Novak
Ortega Patel Pratt Ramos Reyes Rossi Schmidt Silva Tanaka Torres Vargas Wagner Weber Wolfe Young
""")

CITIES = _words("""
Amsterdam Athens Barcelona Beijing Berlin Bern Boston Brussels Cairo Chicago Dallas Delhi Dublin Florence Hamburg
Hanoi Helsinki Istanbul Kyoto Lagos Lisbon London Madrid Manila Milan Montreal Mumbai Munich Naples Oslo Paris Porto
Quito Riga Santiago Seattle Shanghai Singapore Stockholm Sydney Tokyo Toronto Utrecht Venice Vilnius Warsaw Zurich
""")

COUNTRIES = _words("""
Argentina Australia Austria Belgium Brazil Canada Chile China Colombia Croatia Cuba Denmark Egypt England Estonia
Finland France Germany Greece Hungary Iceland India Indonesia Iran Ireland Israel Italy Japan Kenya Korea Latvia
Mexico Morocco Nepal Nigeria Norway Peru Poland Portugal Romania Russia Scotland Spain Sweden Switzerland Thailand
Turkey Ukraine Vietnam Wales
""")

TOPICS = _words("""
gravity football chess democracy Python JavaScript Linux music jazz history philosophy physics chemistry biology
evolution electricity photosynthesis money inflation art poetry Shakespeare Einstein Napoleon Mozart Beethoven Darwin
Newton Picasso dinosaurs volcanoes earthquakes rainbows clouds computers robots rockets planets Mars Jupiter atoms
bacteria viruses vitamins coffee bread sushi pizza yoga love happiness dreams memory language grammar mathematics
calculus algebra geometry statistics economics law medicine surgery engines bridges cars trains airplanes bicycles
elephants tigers whales sharks bees spiders moonlight sunshine websites climate weather tides galaxies lasers
batteries magnets glaciers castles pyramids knights pirates vampires robots opera ballet cinema novels taxes elections
mortgages insurance passports airports hotels gardening cooking fishing swimming running cycling sailing knitting
carpentry plumbing dentistry
""")
