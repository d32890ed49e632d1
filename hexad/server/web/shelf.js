// Small things that the browser remembers for the page. It may forbid that (a private window), or be full: then they
// last until the page is closed, and nothing else fails.

/** `name`: localStorage or sessionStorage. A value is a text, or null where there is none. */
function shelf(name) {
  const here = new Map();
  return {
    get(key) {
      try {
        return here.get(key) ?? window[name].getItem(key);
      } catch {
        return here.get(key) ?? null;
      }
    },
    set(key, value) {
      here.set(key, value);
      try {
        window[name].setItem(key, value);
        here.delete(key);
      } catch {
        // Kept here.
      }
    },
  };
}

export const remembered = shelf("localStorage");
/** As long as the tab is open. */
export const tab = shelf("sessionStorage");
