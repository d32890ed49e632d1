// What to ask first. The built-in demo model knows one small town, so it is asked about that.

const DEMO = [
  "Where does the lighthouse keeper live?",
  "Tell me about Bruno.",
  "Which pet does the florist have?",
  "Name the inhabitants of Chapel Hill.",
];

const ANY = [
  "Explain how a lighthouse works to a curious child.",
  "Write a Python function that finds the longest common prefix of a list of words.",
  "Compare three ways to keep bread fresh, as a table.",
  "Plan a rainy weekend in a small harbour town.",
];

export const suggestionsFor = (model) => (model === "demo" ? DEMO : ANY);
