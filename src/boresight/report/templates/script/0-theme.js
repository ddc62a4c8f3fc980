"use strict";

/* Light or dark: what the system says, until the reader chooses; the choice is kept where the browser allows it. */
(function theme() {
  const root = document.documentElement,
    button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  root.classList.add("js");
  function kept(value) {
    try {
      if (value) localStorage.setItem("boresight-theme", value);
      return localStorage.getItem("boresight-theme");
    } catch {
      return null;
    }
  }
  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }
  function told() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Change to light colours" : "Change to dark colours");
  }
  const before = kept();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept(root.dataset.theme);
    told();
  });
  system.addEventListener("change", told);
  told();
})();
