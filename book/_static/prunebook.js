"use strict";
// What every page can do. The first block runs before the page is drawn, so that a dark page is never white first.
{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // A page that was opened from a folder may be without a memory. Then the theme is that of the system.
  const memory = (work) => {
    try {
      return work(localStorage);
    } catch {
      return null;
    }
  };
  const theme = () => memory((store) => store.getItem("theme")) || (dark.matches ? "dark" : "light");
  const show = () => { root.dataset.theme = theme(); };
  dark.addEventListener("change", show);
  show();

  /** The button names the theme to which it leads. A choice that agrees with the system is forgotten. */
  const startTheme = () => {
    const button = document.querySelector("button.theme");
    const say = () => { button.textContent = root.dataset.theme === "dark" ? "Light page" : "Dark page"; };
    new MutationObserver(say).observe(root, { attributeFilter: ["data-theme"] });
    button.addEventListener("click", () => {
      const next = root.dataset.theme === "dark" ? "light" : "dark";
      const same = (next === "dark") === dark.matches;
      memory((store) => (same ? store.removeItem("theme") : store.setItem("theme", next)));
      root.dataset.theme = next;
    });
    say();
    button.hidden = false;
  };

  /** The chapter that is read is in view in the list of chapters. */
  const startMenu = () => {
    const menu = document.getElementById("book");
    const here = menu.querySelector("a.current");
    const show = () => { menu.scrollTop = here.offsetTop - menu.offsetHeight / 2; };
    if (!here) return;
    show();
    menu.addEventListener("toggle", show);
  };

  /** The list of contents marks the section that is read, and keeps the mark in view. */
  const startContents = () => {
    const list = document.getElementById("contents");
    const links = [...(list?.querySelectorAll("a") ?? [])];
    const target = (link) => document.getElementById(decodeURIComponent(link.hash.slice(1)));
    const places = links.map((link) => [link, target(link)]).filter(([, place]) => place);
    let marked = null;
    const follow = () => {
      const passed = places.filter(([, place]) => place.getBoundingClientRect().top < 120);
      const link = passed.at(-1)?.[0] ?? null;
      if (link === marked) return;
      marked?.removeAttribute("aria-current");
      link?.setAttribute("aria-current", "true");
      if (link && list.offsetHeight < list.scrollHeight) list.scrollTop = link.offsetTop - list.offsetHeight / 2;
      marked = link;
    };
    let due = false;
    const later = () => {
      if (!due) requestAnimationFrame(() => { due = false; follow(); });
      due = true;
    };
    if (places.length) document.addEventListener("scroll", later, { passive: true });
    if (places.length) follow();
    // On a phone the list lies over the page, so a choice closes it.
    list?.addEventListener("click", (event) => { if (event.target.closest("a") && list.matches(":popover-open")) list.hidePopover(); });
  };

  /** A button on each piece of code copies it. Where the browser allows no copying, there is none. */
  const startCopying = () => {
    if (!navigator.clipboard) return;
    for (const code of document.querySelectorAll(".highlight-ipython3, .highlight-python, .highlight-default")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(code.querySelector("pre").textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
      code.append(button);
    }
  };

  /** What is wider than its place can be scrolled by keyboard too. */
  const startScrolling = () => {
    const check = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (target.scrollWidth > target.clientWidth + 1) target.tabIndex = 0;
        else target.removeAttribute("tabindex");
      }
    });
    for (const box of document.querySelectorAll(".wide, div.math, pre")) check.observe(box);
  };

  /** Ctrl+K, or a slash outside of a field, leads to the search. */
  const startKeys = () => {
    const field = document.querySelector("#book input[type=search]");
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, textarea, select, [contenteditable], .one-page, .formula");
      const asked = event.ctrlKey ? event.key === "k" : event.key === "/" && !typing;
      if (!asked || event.altKey || event.metaKey) return;
      event.preventDefault();
      const menu = document.getElementById("book");
      if (getComputedStyle(menu).display === "none") menu.showPopover();
      field.focus();
    });
  };

  /** On paper all boxes are open. */
  const startPrinting = () => {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      for (const box of closed) box.open = true;
    });
    addEventListener("afterprint", () => { for (const box of closed) box.open = false; });
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const link of document.querySelectorAll(".headerlink")) { // for the mouse: "#" says nothing when it is read
      link.tabIndex = -1;
      link.setAttribute("aria-hidden", "true");
    }
    for (const start of [startTheme, startMenu, startContents, startCopying, startScrolling, startKeys, startPrinting]) start();
  });
}
