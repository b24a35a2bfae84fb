
"use strict";
(() => {
  const marks = [...document.querySelectorAll("[data-ids]")];
  const citers = [...document.querySelectorAll("[data-cites]")];
  const status = document.querySelector("#status span");
  const back = document.querySelector("#back");
  const list = (element, name) => (element.dataset[name] || "").split(" ").filter(Boolean);
  const placesOf = new Map();
  for (const mark of marks) for (const id of list(mark, "ids")) placesOf.set(id, [...(placesOf.get(id) || []), mark]);
  const cited = new Set(citers.flatMap((citer) => list(citer, "cites")));
  let origin = null;

  const say = (text) => { status.textContent = text; };
  const show = (element) => element.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });

  function clear() {
    for (const element of document.querySelectorAll(".lit, .citing")) element.classList.remove("lit", "citing");
    for (const element of document.querySelectorAll("[aria-pressed]")) element.setAttribute("aria-pressed", "false");
    for (const element of document.querySelectorAll("[aria-expanded=true]")) expand(element, false);
    back.hidden = true;
    say("");
  }

  function expand(element, open) {
    element.setAttribute("aria-expanded", String(open));
    document.getElementById(element.getAttribute("aria-controls")).hidden = !open;
  }

  // From what cites to the places in the note.
  function follow(citer) {
    const wasOn = citer.getAttribute("aria-pressed") === "true";
    const owner = citer.closest(".sources");
    clear();
    origin = citer;
    if (wasOn) return;
    citer.setAttribute("aria-pressed", "true");
    const holder = owner ? document.querySelector(`[aria-controls="${owner.id}"]`) : citer;
    if (holder.hasAttribute("aria-expanded")) expand(holder, true);
    const places = list(citer, "cites").map((id) => placesOf.get(id) || []);
    for (const place of places.flat()) place.classList.add("lit");
    const inNote = places.map((place) => place.filter((part) => part.closest("#text"))).filter((place) => place.length);
    const first = (inNote[0] || places.flat())[0];
    if (first) show(first);
    back.hidden = false;
    say(inNote.length ? `${inNote.length === 1 ? "One place" : inNote.length + " places"} in the note lit` : first ? "Shown in the summary" : "Nothing to show");
  }

  // From a place in the note to what cites it.
  function trace(place) {
    const ids = new Set(list(place, "ids"));
    const found = citers.filter((citer) => !citer.matches(".source") && list(citer, "cites").some((id) => ids.has(id)));
    if (!found.length) return;
    clear();
    origin = place;
    for (const id of ids) if (cited.has(id)) for (const part of placesOf.get(id)) part.classList.add("lit");
    for (const citer of found) citer.classList.add("citing");
    for (const panel of ["#summary", "#record"]) {
      const first = found.find((citer) => citer.closest(panel));
      if (first && (innerWidth > 1000 || first === found[0])) show(first);
    }
    back.hidden = false;
    say(`Cited by ${found.map((citer) => citer.dataset.name).join("; ")}`);
  }

  for (const citer of citers) {
    citer.setAttribute("aria-pressed", "false");
    citer.addEventListener("click", () => follow(citer));
  }
  for (const mark of document.querySelectorAll("#text [data-ids]")) {
    if (!list(mark, "ids").some((id) => cited.has(id))) continue;
    mark.addEventListener("click", () => { if (!String(getSelection())) trace(mark); });
    if (!("first" in mark.dataset)) continue;
    mark.tabIndex = 0;
    mark.setAttribute("role", "button");
    mark.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      trace(mark);
    });
  }
  function goBack() {
    const to = origin;
    clear();
    if (to) { show(to); to.focus({ preventScroll: true }); }
  }
  back.addEventListener("click", goBack);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !back.hidden) goBack(); });
})();
