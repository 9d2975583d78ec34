"use strict";
(() => {
  const shown = 12;
  const holder = document.getElementById("profile-data");
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) {
      if (details.querySelectorAll("tr").length <= 15) details.open = true; // long tables are not printed
    }
  });
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const everyone = [];
  for (const side of ["users", "items"]) {
    for (const [id, count, pairs] of data[side]) {
      const words = [];
      for (let k = 0; k < pairs.length; k += 2) words.push([data.words[pairs[k]], pairs[k + 1]]);
      everyone.push({ side, id, count, words, folded: id.toLowerCase() });
    }
  }
  const query = document.getElementById("query");
  const side = document.getElementById("side");
  const list = document.getElementById("profiles");
  const found = document.getElementById("found");

  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text; // never markup: ids and words come from the data
    return made;
  };

  const line = (profile) => {
    const made = element("li");
    const who = element("span", "who", profile.side === "users" ? "user " : "item ");
    const id = element("bdi", "id", profile.id); // CSS cuts a long id
    id.title = profile.id;
    who.append(id);
    const count = profile.count.toLocaleString("en");
    who.append(element("small", "", ` ${count} interaction${profile.count === 1 ? "" : "s"}`));
    made.append(who);
    if (!profile.words.length) made.append(element("span", "none", "no keywords"));
    const most = profile.words.length ? profile.words[0][1] : 1;
    for (const [word, weight] of profile.words) {
      const chip = element("span", "word", word);
      chip.title = `${word}, weight ${weight.toFixed(1)}`;
      chip.style.setProperty("--share", String(most > 0 ? weight / most : 0));
      made.append(chip, " ");
    }
    return made;
  };

  const rank = (profile, text) => {
    if (profile.folded === text) return 0;
    if (profile.folded.startsWith(text)) return 1;
    if (profile.folded.includes(text)) return 2;
    return profile.words.some(([word]) => word === text) ? 3 : 4;
  };

  const search = () => {
    const text = query.value.trim().toLowerCase();
    const eligible = everyone.filter((profile) => side.value === "both" || profile.side === side.value);
    let matching = eligible.map((profile) => [text ? rank(profile, text) : 0, profile]);
    matching = matching.filter(([place]) => place < 4).sort((a, b) => a[0] - b[0]);
    list.replaceChildren(...matching.slice(0, shown).map(([, profile]) => line(profile)));
    const total = matching.length.toLocaleString("en");
    const first = matching.length > shown ? `, the first ${shown} shown` : "";
    found.textContent = text ? `${total} found${first}` : `${total} profiles${first}`;
  };

  document.getElementById("profile-search").addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", search);
  side.addEventListener("change", search);
  search();
})();
