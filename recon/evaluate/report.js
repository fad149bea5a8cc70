"use strict";
(() => {
  const list = document.querySelector(".views tbody"), viewer = document.querySelector(".viewer");
  if (!viewer) return;
  document.documentElement.classList.add("js");
  const find = (name) => viewer.querySelector(name);
  const stage = find(".stage"), slider = find("input[type=range]"), title = find("h3"), numbers = find(".numbers");
  const pictured = () => [...list.rows].filter((row) => row.querySelector("img"));
  let current = null;

  const slide = (percent) => {
    slider.value = percent;
    stage.style.setProperty("--x", slider.value + "%");
  };
  const layer = (kind, place) => {
    const picture = current.querySelector("img." + kind).cloneNode();
    picture.className = place;
    return picture;
  };
  const show = (row) => {
    if (current) current.removeAttribute("aria-current");
    current = row;
    row.setAttribute("aria-current", "true");
    const against = find("input[name=against]:checked").value;
    for (const old of stage.querySelectorAll("img")) old.remove();
    const under = layer("photo", "under"), over = layer(against, "over");
    const ratio = under.getAttribute("width") / under.getAttribute("height");
    stage.style.aspectRatio = ratio;
    stage.style.maxWidth = "calc(75vh * " + ratio + ")";
    stage.prepend(under, over);
    find(".tag.right").textContent = against === "error" ? "Error" : "Render";
    title.textContent = row.dataset.name;
    numbers.textContent = row.dataset.numbers;
  };
  const step = (by) => {
    const rows = pictured();
    show(rows[(rows.indexOf(current) + by + rows.length) % rows.length]);
  };

  slider.addEventListener("input", () => slide(slider.value));
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    slide((100 * (event.clientX - box.left)) / box.width);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons) drag(event);
  });
  for (const choice of viewer.querySelectorAll("input[name=against]")) choice.addEventListener("change", () => show(current));
  find(".previous").addEventListener("click", () => step(-1));
  find(".next").addEventListener("click", () => step(1));
  list.addEventListener("click", (event) => {
    const row = event.target.closest("button, .picture")?.closest("tr");
    if (!row || !row.querySelector("img")) return;
    show(row);
    slider.focus({ preventScroll: true });
    viewer.scrollIntoView({ block: "nearest" });
  });
  document.querySelector("#order").addEventListener("change", (event) => {
    const [key, sign] = event.target.value.split(" ");
    const rows = [...list.rows].sort((a, b) => (a.dataset[key] - b.dataset[key]) * sign);
    list.append(...rows);
  });
  show(pictured()[0]);
})();
