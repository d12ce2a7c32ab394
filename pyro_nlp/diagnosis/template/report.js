"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tables: a click on a title sorts by it, a second one the other way round.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });

  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((title, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      title.append(button);
      button.addEventListener("click", () => {
        const up = title.getAttribute("aria-sort") !== "ascending";
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        title.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(key(a, column), key(b, column)));
        body.append(...rows);
      });
    });
  }

  // Steppers: one step at a time, by the buttons or the arrow keys, or by a click on what a picture beside marks.
  for (const stepper of all(".stepper")) {
    const steps = all(".step", stepper);
    const place = stepper.querySelector(".place");
    const beside = stepper.closest(".beside");
    const marks = beside ? all("[data-step]", beside) : [];
    let now = 0;
    const show = (index) => {
      now = (index + steps.length) % steps.length;
      steps.forEach((step, i) => { step.hidden = i !== now; });
      marks.forEach((mark) => mark.classList.toggle("now", Number(mark.dataset.step) === now));
      place.textContent = `${now + 1} of ${steps.length}`;
    };
    marks.forEach((mark) => mark.addEventListener("click", () => show(Number(mark.dataset.step))));
    stepper.querySelector(".previous").addEventListener("click", () => show(now - 1));
    stepper.querySelector(".next").addEventListener("click", () => show(now + 1));
    stepper.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { show(now + by); event.preventDefault(); }
    });
    if (steps.length > 1) { stepper.querySelector(".bar").hidden = false; }
    show(0);
  }

  // What a link or a printer wants to see is opened first.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    const run = target && target.closest("details");
    if (run) { run.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", () => all("details").forEach((run) => { run.open = true; }));
  reveal();

  // `report.html#selftest` uses the page as a reader would and writes down what happened; the tests open it so.
  if (location.hash === "#selftest") {
    const sorted = all("table.sortable").map((table) => {
      const titles = all("thead th", table);
      return titles.map((title, column) => {
        const states = [];
        for (let i = 0; i < 2; i += 1) {
          title.querySelector("button").click();
          const keys = [...table.tBodies[0].rows].map((row) => key(row, column));
          const sign = title.getAttribute("aria-sort") === "ascending" ? 1 : -1;
          states.push(keys.every((value, j) => j === 0 || sign * compare(keys[j - 1], value) <= 0));
        }
        return states.every(Boolean);
      }).every(Boolean);
    });
    const stepped = all(".stepper").map((stepper) => {
      const read = () => stepper.querySelector(".place").textContent;
      const seen = () => all(".step", stepper).findIndex((step) => !step.hidden);
      const steps = all(".step", stepper).length;
      const trail = [[read(), seen()]];
      for (const name of [".next", ".next", ".previous", ".previous", ".previous"]) {
        stepper.querySelector(name).click();
        trail.push([read(), seen()]);
      }
      stepper.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
      trail.push([read(), seen()]);
      return { steps, trail };
    });
    const marked = all(".beside").map((beside) => all("[data-step]", beside).map((mark) => {
      mark.dispatchEvent(new MouseEvent("click"));
      const seen = all(".step", beside).findIndex((step) => !step.hidden);
      const lit = all(".now", beside);
      return seen === Number(mark.dataset.step) && lit.length === 1 && lit[0] === mark;
    }));
    const pinned = all(".pinned").map((scroll) => {
      scroll.scrollLeft = scroll.scrollWidth;
      const edge = scroll.getBoundingClientRect().left + scroll.clientLeft;
      return all("tr", scroll).every((row) => Math.abs(row.cells[0].getBoundingClientRect().left - edge) < 1);
    });
    const wide = document.documentElement.scrollWidth > innerWidth;
    document.documentElement.dataset.selftest = JSON.stringify({ sorted, stepped, marked, pinned, wide, width: innerWidth });
  }
})();
