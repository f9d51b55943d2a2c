"""The closed world of the embedded models: topics, skills, verbs, query types, sentence templates.

Every skill is a verb, then one to three words that end in a plural noun, so that no template has to
choose between "it" and "them". Templates use the verbs of this table only to state a skill, never
in passing: otherwise a text would seem to use a skill that it does not.
"""

from typing import NamedTuple


class Topic(NamedTuple):
    """An everyday topic: where it happens, with what, who does it, and its ten skills."""

    contexts: tuple[str, ...]
    tools: tuple[str, ...]
    roles: tuple[str, ...]
    skills: tuple[str, ...]


def _topic(contexts: str, tools: str, roles: str, skills: str) -> Topic:
    """Split comma-separated phrases and a space-separated skill list."""
    phrases = [tuple(part.strip() for part in text.split(",")) for text in (contexts, tools, roles)]
    return Topic(phrases[0], phrases[1], phrases[2], tuple(skills.split()))


TOPICS: dict[str, Topic] = {
    "home_cooking": _topic(
        "a family dinner, a small kitchen, a busy evening",
        "a recipe card, the kitchen scale, a meal chart",
        "home cook, new parent",
        "plan_weekly_meals compare_food_prices store_leftovers measure_ingredients"
        " clean_cutting_boards choose_fresh_vegetables test_new_recipes prepare_sauces"
        " improve_soups organize_spices",
    ),
    "household_budget": _topic(
        "a tight month, a first job, a shared flat",
        "a spending notebook, a simple spreadsheet, the bank app",
        "young worker, careful saver",
        "track_expenses estimate_monthly_bills reduce_bank_fees compare_phone_contracts"
        " review_receipts schedule_payments share_rent_costs plan_savings_goals"
        " check_account_statements simplify_spending_rules",
    ),
    "vegetable_gardening": _topic(
        "a small balcony, a sunny yard, a dry summer",
        "a garden diary, the watering can, a planting chart",
        "new gardener, retired teacher",
        "plan_garden_beds choose_seeds check_leaves prepare_compost_piles"
        " schedule_watering_days store_bulbs compare_fertilizers measure_soil_samples"
        " protect_young_plants collect_ripe_tomatoes",
    ),
    "bike_care": _topic(
        "a daily commute, a weekend ride, a rainy season",
        "a hand pump, the wrench set, a service log",
        "cyclist, courier",
        "repair_flat_tires clean_bike_chains check_brakes choose_bike_lights"
        " store_spare_parts test_gear_shifts compare_helmets measure_saddle_heights"
        " schedule_service_visits protect_painted_frames",
    ),
    "study_habits": _topic(
        "a final exam, an evening course, a noisy house",
        "a wall calendar, the study timer, a stack of paper",
        "student, night worker",
        "schedule_study_hours organize_class_notes practice_exam_questions"
        " review_hard_chapters explain_key_ideas track_quiz_scores reduce_distractions"
        " design_memory_cards estimate_reading_times share_study_guides",
    ),
    "travel_planning": _topic(
        "a weekend trip, a long train ride, a beach holiday",
        "a travel folder, the packing list, a pocket guide",
        "tourist, busy nurse",
        "compare_train_tickets plan_day_routes prepare_travel_documents estimate_hotel_costs"
        " choose_window_seats check_weather_reports organize_suitcases share_trip_photos"
        " protect_passports collect_city_maps",
    ),
    "team_meetings": _topic(
        "a small office, a remote team, a new project",
        "a white board, the meeting timer, a task board",
        "team leader, office manager",
        "schedule_meetings prepare_agendas share_action_items review_deadlines"
        " reduce_interruptions explain_decisions track_open_tasks improve_meeting_notes"
        " collect_team_ideas simplify_status_updates",
    ),
    "job_search": _topic(
        "a career change, a first interview, a slow market",
        "a job folder, the company website, a notes app",
        "designer, recent graduate",
        "improve_cover_letters practice_interview_answers compare_job_offers"
        " track_applications prepare_work_samples review_contracts schedule_job_interviews"
        " choose_references collect_certificates estimate_salaries",
    ),
    "home_repair": _topic(
        "an old house, a rented room, a wet autumn",
        "a step ladder, the tape rule, a repair manual",
        "tenant, house owner",
        "repair_leaky_taps measure_window_frames choose_wall_paints test_smoke_alarms"
        " estimate_repair_costs organize_tool_boxes clean_drains check_roof_tiles"
        " protect_wooden_floors plan_room_upgrades",
    ),
    "pet_care": _topic(
        "a city flat, a new puppy, a long absence",
        "a feeding chart, the pet diary, a soft brush",
        "dog owner, cat lover",
        "schedule_vet_visits measure_food_portions clean_litter_boxes"
        " practice_basic_commands choose_pet_toys track_weight_changes reduce_barking_habits"
        " prepare_travel_crates compare_leashes protect_paws",
    ),
    "fitness_training": _topic(
        "a first race, a home gym, a short lunch break",
        "a training log, the step counter, a yoga mat",
        "runner, desk worker",
        "plan_workouts track_heart_rates practice_stretches improve_running_times"
        " prepare_protein_snacks schedule_rest_days test_running_shoes review_fitness_goals"
        " reduce_muscle_pains measure_jump_distances",
    ),
    "event_hosting": _topic(
        "a birthday party, a school fair, a small wedding",
        "a guest list, the event folder, a seating chart",
        "host, event helper",
        "estimate_guest_numbers choose_party_menus share_invitations schedule_speeches"
        " prepare_table_decorations check_sound_systems organize_helpers compare_venues"
        " design_name_tags collect_guest_wishes",
    ),
    "home_energy": _topic(
        "a cold winter, a drafty house, a high bill",
        "a smart meter, the energy app, a room thermometer",
        "flat owner, careful tenant",
        "reduce_heating_costs track_power_readings compare_energy_suppliers"
        " check_window_seals measure_room_temperatures choose_light_bulbs"
        " repair_old_radiators explain_meter_displays test_thermostats estimate_solar_gains",
    ),
    "photography": _topic(
        "a family album, a rainy walk, a school concert",
        "a light stand, the photo app, a lens cloth",
        "hobby photographer, proud parent",
        "choose_camera_settings practice_portraits organize_photo_files improve_light_setups"
        " clean_lenses store_memory_sticks review_edits test_camera_angles"
        " design_photo_albums protect_tripods",
    ),
    "language_learning": _topic(
        "a year abroad, an evening class, a long bus ride",
        "a word list, the audio app, a small notebook",
        "beginner, busy parent",
        "practice_pronunciation_drills review_vocabulary_lists schedule_speaking_sessions"
        " track_daily_lessons explain_grammar_rules choose_podcasts test_listening_skills"
        " share_short_stories collect_useful_phrases improve_accents",
    ),
    "customer_service": _topic(
        "a small shop, a busy phone line, an online store",
        "a reply folder, the order system, a help desk",
        "shop owner, support agent",
        "explain_refund_rules track_complaints improve_reply_times prepare_answer_templates"
        " review_customer_comments reduce_returns check_order_details share_discount_codes"
        " simplify_order_forms collect_feedback_cards",
    ),
    "child_care": _topic(
        "a rainy afternoon, a school morning, a long car ride",
        "a picture frame, the kitchen timer, a toy basket",
        "parent, babysitter",
        "schedule_nap_times prepare_lunch_boxes choose_quiet_games explain_safety_rules"
        " reduce_screen_hours organize_toy_shelves practice_bedtime_songs track_allergies"
        " collect_picture_books design_reward_charts",
    ),
    "public_speaking": _topic(
        "a class talk, a wedding toast, a sales pitch",
        "a mirror, the phone recorder, a paper outline",
        "speaker, shy student",
        "practice_opening_lines organize_main_points reduce_filler_words test_microphones"
        " improve_hand_gestures prepare_slides estimate_speech_lengths review_recordings"
        " simplify_long_sentences choose_good_examples",
    ),
    "sewing": _topic(
        "a worn jacket, a school costume, a winter coat",
        "a sewing kit, the paper pattern, a cutting mat",
        "hobby tailor, costume maker",
        "measure_fabric_lengths choose_thread_colors repair_torn_seams"
        " practice_hand_stitches store_needles test_machine_settings compare_fabrics"
        " plan_pattern_layouts collect_buttons design_curtains",
    ),
    "neighborhood_help": _topic(
        "a storm week, an old neighbor, a street fair",
        "a contact list, the group chat, a town map",
        "volunteer, new neighbor",
        "organize_donations share_garden_tools schedule_neighbor_visits"
        " check_emergency_supplies plan_cleanup_routes explain_recycling_rules"
        " track_volunteer_hours improve_street_signs collect_used_clothes"
        " prepare_food_baskets",
    ),
    "music_practice": _topic(
        "a spring concert, a new band, a quiet evening",
        "a music stand, the click track, a song book",
        "piano student, choir singer",
        "practice_piano_scales choose_songs repair_guitar_strings schedule_band_rehearsals"
        " improve_rhythms review_concert_programs store_instruments compare_headphones"
        " explain_chords share_playlists",
    ),
    "woodworking": _topic(
        "a small garage, a first workshop, a gift for a friend",
        "a work bench, the square ruler, a dust mask",
        "hobby builder, apprentice",
        "measure_boards design_bookshelves prepare_glue_joints choose_screws test_drill_bits"
        " protect_table_surfaces store_sharp_blades estimate_wood_amounts compare_hand_saws"
        " repair_broken_chairs",
    ),
    "camping_trips": _topic(
        "a mountain weekend, a lake holiday, a windy night",
        "a rain cover, the trail app, a camp stove",
        "hiker, scout leader",
        "plan_hiking_trails check_tent_poles prepare_campfires choose_sleeping_bags"
        " test_flashlights organize_backpacks protect_food_bags reduce_pack_weights"
        " collect_dry_branches share_camp_duties",
    ),
    "computer_safety": _topic(
        "a new laptop, a home office, a lost phone",
        "a safe folder, the settings page, a paper copy",
        "remote worker, careful user",
        "improve_passwords check_software_updates review_privacy_settings store_data_backups"
        " explain_phishing_mails reduce_spam_messages test_recovery_codes"
        " protect_home_networks compare_antivirus_tools simplify_login_steps",
    ),
}

# verb: its -ing form, then three sentences of its own.
# Slots: n noun, k number, t tool, d day, p person.
VERBS: dict[str, tuple[str, tuple[str, str, str]]] = {
    "plan": (
        "planning",
        (
            "Plan the {n} on one sheet of paper.",
            "Plan the {n} with {k} clear goals in mind.",
            "Sit down on {d} and plan the {n} with {p}.",
        ),
    ),
    "compare": (
        "comparing",
        (
            "Compare the {n} in a table with {k} rows.",
            "Compare the {n} side by side and note the best ones.",
            "Read aloud to {p} how you compare the {n}.",
        ),
    ),
    "track": (
        "tracking",
        (
            "Track the {n} with a short note every evening.",
            "Track the {n} for {k} weeks and look for patterns.",
            "Keep {t} nearby so that you can track the {n}.",
        ),
    ),
    "organize": (
        "organizing",
        (
            "Organize the {n} into {k} groups with clear names.",
            "Organize the {n} by how often you need them.",
            "Clear a space on {d} and organize the {n} there.",
        ),
    ),
    "choose": (
        "choosing",
        (
            "Choose the {n} that fit your needs.",
            "Write {k} simple rules and choose the {n} by them.",
            "Talk with {p} before you choose the {n}.",
        ),
    ),
    "repair": (
        "repairing",
        (
            "Repair the {n} before the damage grows.",
            "Take a picture first, then repair the {n} part by part.",
            "Call {p} on {d} if you cannot repair the {n} alone.",
        ),
    ),
    "clean": (
        "cleaning",
        (
            "Clean the {n} with warm water and a soft cloth.",
            "Clean the {n} every {k} days.",
            "Wear gloves on {d} when you clean the {n}.",
        ),
    ),
    "store": (
        "storing",
        (
            "Store the {n} in a dry place with a lid.",
            "Store the {n} next to {t}.",
            "Write the date on a note and store the {n} with it.",
        ),
    ),
    "measure": (
        "measuring",
        (
            "Measure the {n} twice and write both numbers down.",
            "Measure the {n} at the same hour for {k} days.",
            "Read the numbers to {p} while you measure the {n}.",
        ),
    ),
    "schedule": (
        "scheduling",
        (
            "Schedule the {n} at least {k} days ahead.",
            "Schedule the {n} for {d} morning.",
            "Leave free time around the {n} when you schedule them.",
        ),
    ),
    "check": (
        "checking",
        (
            "Check the {n} for {k} common problems.",
            "Check the {n} in good light.",
            "Let {p} check the {n} with fresh eyes.",
        ),
    ),
    "improve": (
        "improving",
        (
            "Improve the {n} by changing one thing at a time.",
            "Find {k} small ways to improve the {n}.",
            "Ask {p} what would improve the {n} most.",
        ),
    ),
    "explain": (
        "explaining",
        (
            "Explain the {n} in plain words.",
            "Explain the {n} with {k} everyday pictures.",
            "Explain the {n} to {p} and listen for doubts.",
        ),
    ),
    "share": (
        "sharing",
        (
            "Share the {n} in a friendly way.",
            "Share the {n} with {p} first.",
            "Wait until {d} and share the {n} with the whole group.",
        ),
    ),
    "practice": (
        "practicing",
        (
            "Practice the {n} slowly, then add speed.",
            "Practice the {n} for {k} minutes each day.",
            "Invite {p} to watch while you practice the {n}.",
        ),
    ),
    "estimate": (
        "estimating",
        (
            "Estimate the {n} first, then add {k} percent.",
            "Look at last year to estimate the {n}.",
            "Estimate the {n} in a low case and a high case.",
        ),
    ),
    "prepare": (
        "preparing",
        (
            "Prepare the {n} the night before.",
            "Prepare {k} of the {n} at once to save time.",
            "Lay out {t} and prepare the {n} in order.",
        ),
    ),
    "test": (
        "testing",
        (
            "Test the {n} on a small scale.",
            "Test the {n} {k} times and keep the best result.",
            "Let {p} test the {n} before {d}.",
        ),
    ),
    "reduce": (
        "reducing",
        (
            "Reduce the {n} a little each week.",
            "Find the {k} largest causes and reduce the {n} there.",
            "Agree with {p} on how to reduce the {n}.",
        ),
    ),
    "review": (
        "reviewing",
        (
            "Review the {n} with a pencil in your hand.",
            "Review the {n} every {d}.",
            "Review the {n} and cross out what is done.",
        ),
    ),
    "design": (
        "designing",
        (
            "Design the {n} with a quick sketch.",
            "Design the {n} in {k} bright colors.",
            "Show {p} a draft when you design the {n}.",
        ),
    ),
    "collect": (
        "collecting",
        (
            "Collect the {n} in one large box.",
            "Collect at least {k} of the {n}.",
            "Walk around with {p} on {d} and collect the {n}.",
        ),
    ),
    "protect": (
        "protecting",
        (
            "Protect the {n} with a thick cover.",
            "Protect the {n} from heat, dust and rain.",
            "Teach {p} how to protect the {n}.",
        ),
    ),
    "simplify": (
        "simplifying",
        (
            "Simplify the {n} until a child can follow.",
            "Cross out every second word to simplify the {n}.",
            "Ask {p} which part is hard and simplify the {n} there.",
        ),
    ),
}

# Sentences that fit every verb. Slots as above, and v, V: the verb in lower case and capitalised.
ANY_VERB_STEPS: tuple[str, ...] = (
    "Ask {p} to help you {v} the {n}.",
    "Set aside {k} minutes to {v} the {n}.",
    "Use {t} when you {v} the {n}.",
    "Begin on {d} and {v} the {n} in small parts.",
    "{V} the {n} before anything else.",
    "Write down {k} things you learn while you {v} the {n}.",
    "Once a week, {v} the {n} again.",
    "Do not rush when you {v} the {n}.",
    "Put {t} on the table and {v} the {n} one by one.",
    "Take {k} short breaks while you {v} the {n}.",
    "Tell {p} why you {v} the {n}.",
    "Find a calm hour to {v} the {n}.",
)

QUERY_TYPES: dict[str, str] = {
    "how_to": "numbered steps",
    "day_plan": "one line for each day",
    "advice": "personal words in one paragraph",
    "checklist": "a short list of points",
    "explanation": "reasons with examples",
    "message": "a friendly letter",
    "question_answer": "questions with answers",
    "common_mistakes": "errors and better ways",
}

# Slots: S skills ("plan meals and track bills"), G the same with -ing, c context, r role with
# article, and p, d, k as above.
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "how_to": (
        "How can I {S} for {c}?",
        "I am {r} getting ready for {c}. How do I {S}?",
        "Give me numbered steps to {S} for {c}.",
        "What steps should {r} take to {S}?",
        "{p} wants to {S} before {d}. What are the steps?",
        "Teach me step by step how to {S} during {c}.",
    ),
    "day_plan": (
        "Make a day plan for {c} that helps me {S}.",
        "I have {k} days for {c}. On which day should I {S}?",
        "Give me a week with one task a day so that I can {S}.",
        "As {r}, I want to {S} this week. Fill my days.",
        "{p} and I want to {S} for {c}. What do we do each day?",
        "Spread the work over a few days so that {r} can {S}.",
    ),
    "advice": (
        "I find {G} hard. What would you do for {c}?",
        "My friend {p} never manages to {S}. What do you advise for {c}?",
        "I feel lost with {G} as {r}. Please give me advice.",
        "Can you advise me how to {S} without stress?",
        "What is your best advice on {G} for {c}?",
        "I must {S} by {d} and I worry. What should I do?",
    ),
    "checklist": (
        "Write a checklist for {c} so that I can {S}.",
        "I need a short list of points to {S} before {d}.",
        "Make a checklist that helps {r} to {S}.",
        "Which points belong on a list for {G}?",
        "Give {p} a checklist to {S} for {c}.",
        "Put what I need to {S} into a list with {k} minutes for each point.",
    ),
    "explanation": (
        "Why does {G} matter for {c}?",
        "Why should {r} {S}? Please give reasons.",
        "Tell {p} the reasons for {G} with examples.",
        "I do not see the point of {G}. Why is it useful?",
        "What are good reasons to {S} for {c}?",
        "Give me reasons and examples for {G}.",
    ),
    "message": (
        "Write a message to {p} about {G} for {c}.",
        "Help me write to {p}. We need to {S} before {d}.",
        "Write a friendly letter that asks {p} to {S}.",
        "I am {r}. Write a note to {p} on {G}.",
        "Send {p} a kind message so that we {S} for {c}.",
        "Draft a short letter to {p}: we want to {S}.",
    ),
    "question_answer": (
        "Write questions and answers for {r} who wants to {S}.",
        "Answer the usual questions about {G} for {c}.",
        "What do people ask about {G}, and what do you reply?",
        "Make a page of questions and answers on how to {S}.",
        "{p} has many questions about {G}. Please answer them.",
        "Give me questions and answers to {S} before {d}.",
    ),
    "common_mistakes": (
        "Which mistakes do people make when they {S} for {c}?",
        "List common mistakes in {G} and better ways.",
        "I am {r}. Which mistakes in {G} can I avoid?",
        "What goes wrong when people {S}, and what is better?",
        "{p} made mistakes in {G}. What is a better way?",
        "Name the errors of {r} who tries to {S}.",
    ),
}

# Opening lines. Two of three do not name the skills, so a text that only opens well covers nothing.
OPENINGS: dict[str, tuple[str, ...]] = {
    "how_to": (
        "Here is how to {S}.",
        "Start with {t} and work in order.",
        "These steps work well for {c}.",
    ),
    "day_plan": (
        "This week helps you {S}.",
        "Here is a calm week for {c}.",
        "One task a day is enough.",
    ),
    "advice": (
        "Many people find {G} hard, so do not worry.",
        "It is normal to feel unsure about {c}.",
        "You are not alone with this.",
    ),
    "checklist": (
        "Use this list to {S}:",
        "Points for {c}:",
        "Keep this list next to {t}:",
    ),
    "explanation": (
        "There are good reasons for {G}.",
        "It saves time and money, above all for {c}.",
        "The main reason is peace of mind.",
    ),
    "message": (
        "I hope you are well. We need to {S}.",
        "I am thinking about {c} and need your help.",
        "Thank you for your last letter.",
    ),
    "question_answer": (
        "Here are answers about {G}.",
        "People often ask this about {c}.",
        "These answers are short and honest.",
    ),
    "common_mistakes": (
        "Errors in {G} are easy to avoid.",
        "Even {r} makes these mistakes.",
        "Most trouble comes from haste.",
    ),
}

CLOSINGS: tuple[str, ...] = (
    "Keep it simple and stay patient.",
    "Small efforts are enough for {c}.",
    "After {k} weeks this will feel easy.",
    "If something fails, start again on {d}.",
    "Then put {t} away and enjoy the result.",
    "You will be glad that you did this.",
)

REASONS: tuple[str, ...] = (
    "saves a lot of time",
    "keeps small problems small",
    "makes the result last longer",
    "helps everyone feel calm",
    "costs less in the end",
)

NAMES: tuple[str, ...] = tuple(
    "Anna Ben Carla David Elena Farid Grace Hugo Ines Jonas Kim Leo Maria Nadia Omar Paula".split()
)
DAYS: tuple[str, ...] = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
NUMBERS: tuple[str, ...] = tuple("two three four five six seven ten fifteen twenty".split())
JUNK_WORDS: tuple[str, ...] = tuple(
    "stuff whatever maybe dunno lol like kinda just ok fine yeah good bad random um well so"
    " who cares later meh thing things blah hmm nope sure".split()
)

SKILLS: tuple[str, ...] = tuple(skill for topic in TOPICS.values() for skill in topic.skills)
TOPIC_OF_SKILL: dict[str, str] = {
    skill: name for name, topic in TOPICS.items() for skill in topic.skills
}
NOUNS: tuple[str, ...] = tuple(dict.fromkeys(skill.split("_", 1)[1] for skill in SKILLS))
