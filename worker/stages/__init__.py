"""Jobs with files, between the agent and its keeper: `layer` has them staged before they start and collected after."""
