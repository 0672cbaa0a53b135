"""The study: Table 1 of Henrion & Welleck anew, flow priors, and what they are worth."""
